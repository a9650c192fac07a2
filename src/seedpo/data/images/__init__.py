"""Image files as pixels: what is an image, where it lies, and how it becomes upright RGB of one size."""

"""What is measured on images, one record each."""

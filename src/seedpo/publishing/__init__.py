"""What leaves a run folder: weights in other formats, the model card, the upload to the hub."""

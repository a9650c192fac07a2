"""Training: from settings to a trained model, with exact resume."""

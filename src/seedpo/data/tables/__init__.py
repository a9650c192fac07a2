"""Rows of whatever a set is stored in: parquet, text, folders, archives, Hugging Face's formats."""

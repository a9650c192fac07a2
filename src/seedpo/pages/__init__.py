"""What every page is made of: numbers as text, tables, charts as SVG, and one style sheet."""

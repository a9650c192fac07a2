"""What every server of the package needs: its address, bounded connections, and a guard before the application."""

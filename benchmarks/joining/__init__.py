"""What demonstrations that join an update cost."""

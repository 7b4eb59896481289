"""Action plugins: what runs on the controller for a task."""

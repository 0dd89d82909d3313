"""What a user can measure on their own machine: `medseg benchmark memory | tile | specification`."""

"""What `medseg` can be told, a file for each matter. Thin: arguments with their help, one call, an exit code."""

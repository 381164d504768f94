"""The .tflite format: tables, networks, and where they can be cut."""

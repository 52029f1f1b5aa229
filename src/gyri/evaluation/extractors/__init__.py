"""Pretrained networks that turn images into features; one architecture a file.

The parameters' names are those of the published files, so that these load without a map.
"""

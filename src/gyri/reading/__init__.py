"""Readers look at real and synthetic volumes: studies, their pages, their analysis, a viewer."""

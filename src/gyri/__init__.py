"""gyri: synthetic brain MRI, from a cohort of scans to a judged synthetic cohort."""

__version__ = "0.1.0"

"""Brain Imaging Data Structure: raw data sets written and read, derivatives described.

Format: K. J. Gorgolewski et al., "The brain imaging data structure", Scientific Data 3 (2016),
https://bids-specification.readthedocs.io.
"""

from gyri.cohort.bids.reading import read as read
from gyri.cohort.bids.scan import CONTRAST_ENHANCED as CONTRAST_ENHANCED
from gyri.cohort.bids.scan import LABELS_FOLDER as LABELS_FOLDER
from gyri.cohort.bids.scan import Scan as Scan
from gyri.cohort.bids.scan import scan_path as scan_path
from gyri.cohort.bids.scan import stem as stem
from gyri.cohort.bids.writing import BIDS_VERSION as BIDS_VERSION
from gyri.cohort.bids.writing import claim_folder as claim_folder
from gyri.cohort.bids.writing import describe_columns as describe_columns
from gyri.cohort.bids.writing import write_derivative_description as write_derivative_description
from gyri.cohort.bids.writing import write_raw as write_raw
from gyri.cohort.bids.writing import write_readme as write_readme
from gyri.cohort.bids.writing import write_scan as write_scan
from gyri.cohort.bids.writing import write_table as write_table

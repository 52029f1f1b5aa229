"""Usefulness: what a model trained for a task gains from synthetic volumes on real subjects.

Arms that differ in their training set alone are trained equally long, tested on the same subjects
and compared subject by subject; see `gyri.evaluation.utility.study`.
"""

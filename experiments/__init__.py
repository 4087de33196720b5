"""The paper, figure by figure, with numbers where it had pictures: one file a figure, `python -m
experiments.figNN_…`.

`python -m experiments` lists them; `zeroconv reproduce` hands its words over to it. An experiment
imports the package; the package does not know it.
"""

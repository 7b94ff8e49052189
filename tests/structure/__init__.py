"""The structure of the code, measured: `python -m tests.structure`, or `make structure`.

A reader pays for structure, so that each measure counts something that a reader has to do:

- compare copies: functions that run the recurrence over time, definitions of its adjoint, identical runs of lines
- keep in mind: parameters of a function
- scroll: lines of functions and files
- read in an order: imports in a circle, imports upward, private names of another folder
- trust: assertions of tests that may not run
- follow: files on the way of one call of LIF, and visits of each module on the way from a configuration to tensors

The measures read the sources: Python by `ast`, and C++ by a reader of tokens (cpp.py), which knows functions, loops and
calls by name, but no types. One measure runs the package, to see which Python files a call enters. measures.py lists
all measures with their limits, test_structure.py enforces the limits, and each other test covers one module.
"""

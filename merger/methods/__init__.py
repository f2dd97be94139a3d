"""Methods of merging: pure functions on tensors, one file per family.

    averages          linear
    task_arithmetic   task_arithmetic
    ties              ties
    bound             a recipe's method with its numbers, tensor by tensor; the table of methods

Names, ranges and defaults of parameters stand in the merge schema and nowhere else. Nothing here
knows models, files or devices.
"""

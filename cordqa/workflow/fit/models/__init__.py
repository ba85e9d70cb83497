"""One module per model; each defines ``MODEL``, a :class:`~cordqa.workflow.fit.registry.FitModel`.

Put a module here and its model is a sub-command of ``cordqa fit``, is listed by ``cordqa list
models`` and is run by the contract suite.  Modules whose name begins with an underscore are shared
helpers.
"""

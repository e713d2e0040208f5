"""What the PYTHONPATH of every step leads to: the package `agentrun`, for whatever interpreter the step runs.

The folder above holds nothing else, so no other package of agentrun's own environment gets into the step's. It
comes before what is installed there, hence it stands for the whole package: `from agentrun.durable import step`
needs nothing but Python, and `agentrun` and `python -m agentrun` find the program that they always meant.
"""

import os as _os

_package = _os.path.dirname(_os.path.dirname(_os.path.dirname(_os.path.abspath(__file__))))
__path__ = [_package]
__file__ = _os.path.join(_package, "__init__.py")
if __spec__ is not None:
    __spec__.submodule_search_locations = __path__
with open(__file__, "rb") as _source:
    exec(compile(_source.read(), __file__, "exec"))

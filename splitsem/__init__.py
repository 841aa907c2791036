"""splitsem: cut a network in two, send real bytes between the halves, and report what it costs.

From Python, with nothing loaded before it is used::

    graph = splitsem.split(model, example)  # the places to cut; graph.table(), graph.cut("layer2")
    codec = splitsem.codec("quant8", entropy="context")  # tensors to bytes and back
    server = splitsem.serve(graph)  # or any function; remote = splitsem.connect(server.address); remote.compute(z)
    run = splitsem.run("task=digits", "codec=quant8")  # what the command does; run.metrics, run.figures
    table = splitsem.sweep("task=digits", "codec=quant2,quant8")  # a DataFrame; splitsem.results reads kept ones
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

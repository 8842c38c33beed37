"""Small, honest, reproducible MNIST submissions: a model, loaders, `train` and `test`, and records of what came out.

Import from the modules (`mnist_utils.models`, `.data`, `.training`, `.records`, `.assignment`, `.plots`); the command
line is `python -m mnist_utils --help`. It does not choose for you: recipes stand in the notebooks.
"""

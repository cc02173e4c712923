"""Recommenders: from logs of interactions to scores of items."""

import os

# Here, because TensorFlow reads it when it is first imported. What goes wrong comes as an exception; on a machine
# without a GPU its own lines would call that an error.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

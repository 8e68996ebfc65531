# SPDX-License-Identifier: GPL-3.0-or-later
"""The torch modules of the model: shared by training, the torch engine and the ONNX export."""

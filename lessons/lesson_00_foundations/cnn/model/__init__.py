"""Convolution by hand, and the residual networks of the part `cnn`.

convolution.py  convolution and pooling by their definitions, and as one matrix product
resnet.py       `ResNet`, and the MLP of equal size that it is compared with
"""

from lessons.lesson_00_foundations.cnn.model.convolution import conv2d, conv2d_direct, im2col, max_pool2d, mean_pool2d
from lessons.lesson_00_foundations.cnn.model.resnet import MLP, ResNet, count_parameters, mlp_of_equal_size

__all__ = [
    "MLP",
    "ResNet",
    "conv2d",
    "conv2d_direct",
    "count_parameters",
    "im2col",
    "max_pool2d",
    "mean_pool2d",
    "mlp_of_equal_size",
]

"""Shapes of the parameters of a network, from its architecture."""

STAGES = (3, 4, 6, 3)


def resnet50_shapes(width=64, classes=1000):
    """Return the shapes of ResNet-50 (He et al., arXiv:1512.03385): 161 arrays of 25,557,032 elements."""
    shapes = convolution(7, 3, width)
    inputs = width
    for stage, blocks in enumerate(STAGES):
        inner = width * 2**stage
        for block in range(blocks):
            shapes += (
                convolution(1, inputs, inner) + convolution(3, inner, inner) + convolution(1, inner, 4 * inner)
            )
            if block == 0:
                shapes += convolution(1, inputs, 4 * inner)
            inputs = 4 * inner
    return [*shapes, (inputs, classes), (classes,)]


def convolution(size, inputs, outputs):
    """Return the shapes of a convolution without bias, and of scale and shift of the normalisation after it."""
    return [(size, size, inputs, outputs), (outputs,), (outputs,)]

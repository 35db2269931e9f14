"""What a cold process takes, without kernels on disk: to import, and to take a first step with momentum."""


class Start:
    env = {"RMSPROP_CACHE": ""}
    timeout = 120

    def timeraw_import(self):
        return "import rmsprop", "import numpy"

    def timeraw_first_step(self):
        return """
        import numpy, rmsprop
        x = numpy.ones(1_000, numpy.float32)
        rmsprop.RMSprop(momentum=0.9).apply_gradients([(x, x.copy())])
        """

"""Messages to verdicts on gradients: what each means, and what to try."""

from rmsprop.gradient_checks.verdicts import Verdict

WIRTINGER = {
    ("scaled", 0.5): "It is the Wirtinger derivative dL/dconj(z): multiply it by 2.",
    ("scaled", 2.0): "That is a Wirtinger factor too many: the gradient is 2 dL/dconj(z), once.",
    ("conjugate", 0.5): "It is the Wirtinger derivative dL/dz: return 2 conj(g).",
    ("conjugate", 1.0): "It is dL/dRe - i dL/dIm, as of JAX and autograd: return conj(g).",
    ("conjugate", 2.0): "That is a Wirtinger factor too many, besides: return conj(g) / 2.",
}
"""What factors of complex gradients come from; the convention is dL/dRe + i dL/dIm."""

UNCLEAR = {
    "noise": "The loss is too noisy, or changes too little: try another x0, or compute the loss in float64.",
    "kink": "The loss has a kink here: try another x0, a little away.",
    "curvature": "The slope changes within the shortest steps, by kinks or waves: try another x0, or scale x.",
    "not finite": "The loss is not finite at x0 or close to it: try another x0.",
    "stationary": "The loss hardly changes here, as at a minimum: try another x0, such as a random one.",
}
"""Why slopes don't tell, and what to try."""


def message(verdict: Verdict, is_complex: bool) -> str:
    """Return what a verdict means, in sentences; nothing for a gradient that is right."""
    scale = verdict.scale
    if verdict.word == "unclear":
        return UNCLEAR[verdict.reason]
    if verdict.word == "wrong" and verdict.reason == "not finite":
        return "The gradient is not finite, though the loss is."
    if verdict.word == "right":
        return "The gradient of a real array is complex: return its .real." if verdict.reason == "complex" else ""
    times = f"The gradient is {scale:.4g}"
    texts = {
        "zero": "The gradient is 0 everywhere, and the loss changes.",
        "scaled": f"{times} times the true one.",
        "negative": f"{times} times the true one: it leads downhill, and should lead uphill.",
        "conjugate": f"{times} times the conjugate of the true one.",
        "times i": f"{times} i times the true one: look for a factor of i, or .imag in place of .real.",
        "real part": f"{times} times the real part of the true one, which has an imaginary one.",
        "wrong": "The gradient is no multiple of the true one, nor of its conjugate or real part.",
    }
    return f"{texts[verdict.word]} {_factor(verdict) if is_complex else ''}".rstrip()


def _factor(verdict: Verdict) -> str:
    """Return what is known of a factor of a complex gradient."""
    for (word, scale), text in WIRTINGER.items():
        if verdict.word == word and abs(verdict.scale - scale) < 0.01 * scale:
            return text
    return ""

"""Plain words when the prediction of frame labels looks collapsed or trivial."""

from __future__ import annotations


def prediction_advice(row: dict[str, float], suffix: str = "") -> str | None:
    """What is wrong with a logged row of masked prediction, and what to do; None when nothing is.

    Args:
        row: `accuracy`, `perplexity` of the predicted and `label_perplexity` of the true classes.
        suffix: of the names, where there are several label sets.
    """
    accuracy, used, true = (row[name + suffix] for name in ("accuracy", "perplexity", "label_perplexity"))
    if true == 0:  # no frame was predicted
        return None
    if true < 2:
        return (
            f"the labels are nearly all the same (perplexity {true:.2f}): look at `speechkit kmeans report`; "
            "silent recordings, or k-means over features of a model in training mode, do this"
        )
    if used < 1.5 or used < 0.05 * true:
        return (
            f"the predictions collapsed: perplexity {used:.2f} where the labels have {true:.1f}; if it "
            "lasts, lower optim.lr, lengthen the warm-up, or make updates larger (plan.micro_batches)"
        )
    if accuracy > 0.95:
        return (
            f"masked accuracy {accuracy:.3f}: the task has become trivial; use more clusters or labels of a "
            "deeper block, longer masks (model.mask.length), and check that the mask hides what it should"
        )
    return None

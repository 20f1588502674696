"""A copy of BERT's masked-language-model head that speaks for another encoder, with weights of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechkit.encoders.bert import Bert


class HeadCopy(nn.Module):
    """Transform and output layer as BERT has them; from then on they are trained apart from BERT's.

    Args:
        bert: whose head it is.
        ids: the linguistic id of each output, -1 for one that BERT has no word for, such as CTC's blank:
            its row begins with small random values.
    """

    def __init__(self, bert: Bert, ids: Sequence[int]) -> None:
        super().__init__()
        self.transform = copy.deepcopy(bert.model.cls.predictions.transform).requires_grad_(True)
        self.out = nn.Linear(bert.dim, len(ids))
        nn.init.normal_(self.out.weight, std=bert.model.config.initializer_range)
        nn.init.zeros_(self.out.bias)
        self.ids = list(ids)
        self.take(bert)

    @torch.no_grad()
    def take(self, bert: Bert) -> None:
        """Copies BERT's head once more, for weights that were put into BERT after this was built."""
        predictions = bert.model.cls.predictions
        self.transform.load_state_dict(predictions.transform.state_dict())
        ids = torch.tensor(self.ids, device=bert.bert_ids.device)
        rows = (ids >= 0).nonzero().squeeze(1)
        places = bert.bert_ids.index_select(0, ids.index_select(0, rows))
        self.out.weight.index_copy_(0, rows, predictions.decoder.weight.index_select(0, places))
        self.out.bias.index_copy_(0, rows, predictions.decoder.bias.index_select(0, places))

    def forward(self, states: Tensor) -> Tensor:
        """`(..., D)` to logits `(..., len(ids))`."""
        return self.out(self.transform(states))

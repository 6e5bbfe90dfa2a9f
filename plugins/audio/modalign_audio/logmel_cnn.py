"""A small convolutional network on log-mel frames, trained from scratch on a CPU."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.transforms import MelSpectrogram

from modalign import Encoder, Features
from modalign.contracts import Batch


class LogMelCNN(Encoder):
    modality: ClassVar[str] = "audio"

    def __init__(self, width=128, rate=16000, mels=64, layers=2, channels=(24, 48, 96), norm="channel", cmn="item", dropout=0.1,
                 freq_mask=10, time_mask=8, hop_ms=10, win_ms=25, early=True, act="relu", k1=5):
        super().__init__()
        self.width = width
        self.rate = rate
        self.hop = round(rate * hop_ms / 1000)
        n_fft = 1 << (round(rate * win_ms / 1000) - 1).bit_length()
        self.mel = MelSpectrogram(rate, n_fft=n_fft, win_length=round(rate * win_ms / 1000), hop_length=self.hop, n_mels=mels, f_min=40.0,
                                  pad_mode="constant", norm="slaney", mel_scale="slaney")
        self.cmn = cmn; self.act = act
        self.freq_mask, self.time_mask = freq_mask, time_mask
        c = channels
        self.convs = nn.ModuleList([
            nn.Conv2d(1, c[0], k1, stride=(2, 2 if early else 1), padding=k1 // 2),
            nn.Conv2d(c[0], c[1], 3, stride=(2, 2), padding=1),
            nn.Conv2d(c[1], c[2], 3, stride=(2, 1 if early else 2), padding=1),
        ])
        self.norms = nn.ModuleList([nn.LayerNorm(x) if norm == "channel" else GLN(x) for x in c])
        self.join = nn.Linear(c[2] * (mels // 8), width)
        self.jn = nn.LayerNorm(width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(layers)])
        self.drop = nn.Dropout(dropout)
        self.out = nn.LayerNorm(width)

    def modality_options(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def frames(self, wave, mask):
        wave = wave * mask
        x = self.mel(wave)  # N M T
        m = torch.arange(x.shape[2], device=x.device) < (mask.sum(1) // self.hop + 1)[:, None]
        x = torch.log(x + 1e-6)
        mm = m[:, None]
        if self.cmn == "item":
            cnt = mm.sum((1, 2), keepdim=True) * x.shape[1]
            mean = (x * mm).sum((1, 2), keepdim=True) / cnt
            var = ((x - mean).square() * mm).sum((1, 2), keepdim=True) / cnt
        elif self.cmn == "bin":
            cnt = mm.sum(2, keepdim=True)
            mean = (x * mm).sum(2, keepdim=True) / cnt
            var = (((x - mean).square() * mm).sum((1, 2), keepdim=True) / cnt / x.shape[1])
        x = (x - mean) / (var + 1e-2).sqrt()
        return x * mm, m

    def forward(self, batch):
        x, m = self.frames(batch["wave"], batch["mask"])
        if self.training and self.freq_mask:
            n, f, t = x.shape
            for _ in range(2):
                w = torch.rand(n, 1, 1, device=x.device) * self.freq_mask
                s = torch.rand(n, 1, 1, device=x.device) * (f - w)
                i = torch.arange(f, device=x.device)[:, None]
                x = x * ~((i >= s) & (i < s + w))
            L = m.sum(1)[:, None, None]
            w = torch.rand(n, 1, 1, device=x.device) * torch.clamp(L * 0.2, max=self.time_mask * 4)
            s = torch.rand(n, 1, 1, device=x.device) * (L - w)
            i = torch.arange(t, device=x.device)
            x = x * ~((i >= s) & (i < s + w))
        x = x[:, None].contiguous(memory_format=torch.channels_last)
        for conv, norm in zip(self.convs, self.norms):
            x = conv(x)
            if x.shape[-1] != m.shape[-1]:
                m = m[:, ::2]
            if isinstance(norm, GLN):
                x = norm(x, m)
            else:
                x = norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            x = (F.relu if self.act == "relu" else F.gelu)(x) * m[:, None, None]
        x = x.permute(0, 3, 1, 2).flatten(2)
        x = self.drop(F.gelu(self.jn(self.join(self.drop(x)))))
        for b in self.blocks:
            x = b(x, m)
        return Features(self.out(x) * m[..., None], m)


class GLN(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c, 1, 1)); self.bias = nn.Parameter(torch.zeros(c, 1, 1))

    def forward(self, x, m):
        mm = m[:, None, None]
        cnt = mm.sum((1, 2, 3), keepdim=True) * x.shape[1] * x.shape[2]
        mean = (x * mm).sum((1, 2, 3), keepdim=True) / cnt
        var = ((x - mean).square() * mm).sum((1, 2, 3), keepdim=True) / cnt
        return (x - mean) * (var + 1e-5).rsqrt() * self.weight + self.bias


class Block(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.norm = nn.LayerNorm(w)
        self.time = nn.Conv1d(w, w, 5, padding=2, groups=w)
        self.a = nn.Linear(w, 2 * w); self.b = nn.Linear(2 * w, w)

    def forward(self, x, m):
        y = self.norm(x) * m[..., None]
        y = self.time(y.transpose(1, 2)).transpose(1, 2)
        return x + self.b(F.gelu(self.a(y)))

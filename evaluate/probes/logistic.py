"""Logistic regressions of many folds at once: L-BFGS preconditioned with Böhning's bound.

The optimum is scikit-learn's. What makes it fast: the softmax's curvature is at most
(I - 11'/K) / 2 times X'X (Böhning 1992, Ann. Inst. Stat. Math. 44), so with X'X/2 + I/C as the
metric twenty to forty steps do where plain L-BFGS takes hundreds on correlated features; X'X of
every training set comes by subtraction (evaluate/probes/moments.py); and all problems go through
the data together, as columns of one matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluate.probes.moments import Moments

TOLERANCE = 1e-9  # of the objective: the decrease a step still promises
MAX_EVALUATIONS = 5000  # reaching them is an error
PATIENCE = 10  # evaluations without a decrease: float32 gives no more, float64 goes on
REACHED = 1e-6  # of the objective: what may still be promised where float64 gives no more
HISTORY = 30  # steps L-BFGS remembers
ELEMENTS = 2**18  # scores (rows x problems x classes) taken at once, so that they stay in cache
SMALL = 2**22  # numbers that float64 takes no time for
NOISE = 1e-8  # relative error of an objective summed in float32


@dataclass(frozen=True)
class Problem:
    """A regression on all rows but those of some parts."""

    left_out: tuple[int, ...]
    C: float = 1.0  # inverse strength of the L2 penalty, on standardised features


class Regressions:
    """Fitted logistic regressions that share their rows.

    Attributes:
        objective: (P,) float64, C * sum of losses + |w|^2 / 2, divided by C.
        evaluations: passes over the data.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        parts: np.ndarray,
        problems: Sequence[Problem],
        blocks: Sequence[int] | None = None,
    ):
        """Standardise on each problem's own rows, and fit.

        Args:
            features: (N, D) float.
            labels: (N,) int in [0, K), K >= 2, each in every training set.
            parts: (N,) int in [0, A).
            problems: what each leaves out.
            blocks: widths of parts of a row, D in all, each of which is scaled to a total variance
                of 1, so that a penalty weighs on a narrow one as on a wide one; None: every
                feature has a variance of 1.

        Raises:
            RuntimeError: not converged in MAX_EVALUATIONS.
        """
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.order = np.argsort(parts, kind="stable")  # a part's rows lie together
        count, classes = int(parts.max()) + 1, int(labels.max()) + 1
        self.bounds = np.searchsorted(parts[self.order], np.arange(count + 1)).tolist()
        self.problems, self.rows_of_w = list(problems), 1 if classes == 2 else classes
        mean = np.mean(features, axis=0, dtype=np.float64)
        spread = np.std(features, axis=0, dtype=np.float64)
        spread[spread == 0] = 1
        dtype = np.float64 if features.size <= SMALL else np.float32
        z = ((features[self.order] - mean) / spread).astype(dtype)
        self.x = torch.from_numpy(z).to(self.device)  # (N, D), about 0 and of unit scale
        self.labels = torch.from_numpy(labels[self.order].astype(np.int64)).to(self.device)
        weight = np.repeat(np.sqrt(blocks), blocks) if blocks else np.ones(z.shape[1])
        self.weight = torch.from_numpy(weight)  # (D,), by which scales are multiplied
        self.shared_mean, self.shared_spread = mean, spread
        self._measure(Moments([z], parts[self.order], count, self.x.dtype))
        self._minimise()

    def probabilities(self, problem: int, part: int) -> np.ndarray:
        """Return (M, K) float64 of a part's rows, in their order in `features`."""
        first, last = self.bounds[part], self.bounds[part + 1]
        w, b = self._on_shared_scale(self.w[[problem]], torch.tensor([problem]))
        scores = torch.addmm(b, self.x[first:last], w.T).double()
        if self.rows_of_w == 1:
            scores = torch.cat([torch.zeros_like(scores), scores], dim=1)
        return scores.softmax(1).cpu().numpy()

    def coefficients(self, problem: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return a model on features as they are given: scores are (x - mean) / scale @ w.T + b.

        Returns:
            mean (D,), scale (D,), w (K, D), b (K,), float64; of two classes the first has zeros.
        """
        mean = self.shared_mean + self.shared_spread * self.mean[problem].cpu().numpy()
        scale = self.shared_spread * self.scale[problem].cpu().numpy()
        w = self.w[problem].cpu().numpy()  # (R, D + 1)
        if self.rows_of_w == 1:
            w = np.concatenate([np.zeros_like(w), w])
        return mean, scale, w[:, :-1], w[:, -1]

    def _measure(self, moments: Moments) -> None:
        """Keep each problem's mean, scale, and inverse of Böhning's bound on the curvature."""
        bound = 0.25 if self.rows_of_w == 1 else 0.5
        means, scales, metrics, counts = [], [], [], []
        for problem in self.problems:
            n, mean, products = moments.without(problem.left_out)
            scale = moments.scale(n, products) * self.weight
            curvature = bound * products / (scale[:, None] * scale)
            curvature.diagonal().add_(1 / problem.C)
            metrics.append(torch.linalg.inv(curvature))
            means.append(mean)
            scales.append(scale)
            counts.append(bound * n)
        self.mean, self.scale, self.metric, self.count = (
            torch.stack(parts).to(self.device) for parts in (means, scales, metrics, counts)
        )  # (P, D), (P, D), (P, D, D), (P,)
        self.penalty = torch.tensor([1 / p.C for p in self.problems], dtype=torch.float64).to(
            self.device
        )
        self.trains = torch.tensor(
            [[part not in p.left_out for p in self.problems] for part in range(len(moments.n))]
        )  # (A, P) bool

    def _on_shared_scale(self, w: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (P * R, D) and intercepts (P * R,) that apply to `x`."""
        weights = w[..., :-1] / self.scale[active, None]
        intercepts = w[..., -1] - (weights * self.mean[active, None]).sum(-1)
        return weights.flatten(0, 1).to(self.x.dtype), intercepts.flatten().to(self.x.dtype)

    def _evaluate(self, w: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objectives (P,) and gradients (P, R, D + 1) of the active problems."""
        problems, rows, _ = w.shape
        weights, intercepts = self._on_shared_scale(w, active)
        weights, intercepts = weights.view(problems, rows, -1), intercepts.view(problems, rows)
        loss = torch.zeros(problems, dtype=torch.float64, device=self.device)
        slope = torch.zeros_like(w[..., :-1])
        lean = torch.zeros_like(w[..., -1])
        for part in range(len(self.bounds) - 1):
            chosen = torch.nonzero(self.trains[part, active])[:, 0]
            if not len(chosen):
                continue
            held, lift = weights[chosen].flatten(0, 1), intercepts[chosen].flatten()  # (p * R, …)
            step = max(256, min(4096, ELEMENTS // len(held)))
            for i in range(self.bounds[part], self.bounds[part + 1], step):
                stop = min(i + step, self.bounds[part + 1])
                x = self.x[i:stop]  # (B, D)
                scores = torch.addmm(lift, x, held.T).view(stop - i, len(chosen), rows)
                losses, residuals = _loss(scores, self.labels[i:stop])
                residuals = residuals.flatten(1)  # (B, p * R)
                loss[chosen] += losses
                slope[chosen] += (residuals.T @ x).double().view(len(chosen), rows, -1)
                lean[chosen] += residuals.sum(0).double().view(len(chosen), rows)
        # the chain rule of standardising: x_p = (x - mean_p) / scale_p
        slope = (slope - lean[..., None] * self.mean[active, None]) / self.scale[active, None]
        penalty = self.penalty[active]
        loss += penalty * w[..., :-1].square().sum((1, 2)) / 2
        slope += penalty[:, None, None] * w[..., :-1]
        return loss, torch.cat([slope, lean[..., None]], dim=2)

    def _minimise(self) -> None:
        """Step all problems together; each has its own step length and stops on its own."""
        shape = (len(self.problems), self.rows_of_w, self.x.shape[1] + 1)
        self.w = torch.zeros(shape, dtype=torch.float64, device=self.device)
        self.objective = torch.zeros(shape[0], dtype=torch.float64)
        active = torch.arange(shape[0])
        w = self.w.clone()
        f, g = self._evaluate(w, active)
        memory = _Memory(self.metric, self.count)
        d = memory.direction(g)
        length, before = torch.ones_like(f), f
        self.evaluations = 1
        while len(active):
            trial = w + length[:, None, None] * d
            f_trial, g_trial = self._evaluate(trial, active)
            self.evaluations += 1
            slope = length * (g * d).sum((1, 2))
            taken = f_trial <= f + 1e-4 * slope + NOISE * f  # Armijo's condition
            memory.add(trial - w, g_trial - g, taken)
            w = torch.where(taken[:, None, None], trial, w)
            g = torch.where(taken[:, None, None], g_trial, g)
            f = torch.where(taken, f_trial, f)
            d = torch.where(taken[:, None, None], memory.direction(g), d)
            length = torch.where(taken, 1.0, length / 2)
            promised = -(g * d).sum((1, 2)) / 2
            done = taken & (promised <= TOLERANCE * f)
            if self.evaluations % PATIENCE == 0:
                stalled, before = before - f <= TOLERANCE * f, f
                if self.x.dtype == torch.float64:
                    self._refuse(active[(stalled & (promised > REACHED * f)).cpu()])
                    done |= stalled
                elif (stalled & ~done).any():
                    self.x = self.x.double()
                    f, g = self._evaluate(w, active)
                    memory.steps.clear()
                    d, length = memory.direction(g), torch.ones_like(f)
            if self.evaluations >= MAX_EVALUATIONS:
                self._refuse(active)
            if done.any():
                finished, rest = done.cpu(), ~done
                self.w[active[finished]] = w[done]
                self.objective[active[finished]] = f[done].cpu()
                active = active[~finished]
                w, f, g, d, length, before = (v[rest] for v in (w, f, g, d, length, before))
                memory.keep(rest)

    def _refuse(self, unfinished: Tensor) -> None:
        if len(unfinished):
            raise RuntimeError(
                f"a logistic regression (C = {self.problems[unfinished[0]].C:g}) is not done after "
                f"{self.evaluations} evaluations; take a smaller C"
            )


class _Memory:
    """L-BFGS' last steps, of several problems side by side (Nocedal & Wright, algorithm 7.4)."""

    def __init__(self, metric: Tensor, count: Tensor):
        self.metric, self.count = metric, count
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []  # s, y: (P, R, D + 1); 1 / s'y: (P,)
        self.gauge = torch.ones_like(count)

    def add(self, s: Tensor, y: Tensor, taken: Tensor) -> None:
        """Remember a step where it was taken and the curvature along it is positive."""
        along = (s * y).sum((1, 2))
        good = taken & (along > 1e-14 * s.norm(dim=(1, 2)) * y.norm(dim=(1, 2)))
        inverse = torch.where(good, 1 / torch.where(good, along, 1.0), 0.0)
        self.steps = [*self.steps[-HISTORY + 1 :], (s, y, inverse)]
        across = (y * self._apply(y)).sum((1, 2))
        self.gauge = torch.where(good, along / across.clamp_min(1e-300), self.gauge)

    def direction(self, g: Tensor) -> Tensor:
        """Return the direction of descent, (P, R, D + 1)."""
        q, shares = g, []
        for s, y, inverse in reversed(self.steps):
            share = inverse * (s * q).sum((1, 2))
            q = q - share[:, None, None] * y
            shares.append(share)
        d = self.gauge[:, None, None] * self._apply(q)
        for (s, y, inverse), share in zip(self.steps, reversed(shares), strict=True):
            d = d + (share - inverse * (y * d).sum((1, 2)))[:, None, None] * s
        return -d

    def keep(self, rest: Tensor) -> None:
        """Forget the problems that are done."""
        self.metric, self.count, self.gauge = (
            values[rest] for values in (self.metric, self.count, self.gauge)
        )
        self.steps = [(s[rest], y[rest], inverse[rest]) for s, y, inverse in self.steps]

    def _apply(self, g: Tensor) -> Tensor:
        """Return g in Böhning's metric."""
        return torch.cat(
            [g[..., :-1] @ self.metric, g[..., -1:] / self.count[:, None, None]], dim=2
        )


def _loss(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses summed over rows (p,) float64, and their slopes by score (B, p, R).

    Args:
        scores: (B, p, R); R is 1 for two classes, whose second has the score.
        labels: (B,) int64.
    """
    if scores.shape[2] == 1:
        truth = labels[:, None, None].to(scores.dtype)
        losses = torch.nn.functional.softplus(scores) - truth * scores
        return losses.sum((0, 2), dtype=torch.float64), scores.sigmoid() - truth
    index = labels[:, None, None].expand(-1, scores.shape[1], 1)
    total = scores.logsumexp(2, keepdim=True)
    losses = total - scores.gather(2, index)
    residuals = scores.sub_(total).exp_()
    residuals.scatter_add_(2, index, torch.full_like(losses, -1))
    return losses.sum((0, 2), dtype=torch.float64), residuals

"""The language model in float64 numpy, one sentence length at a time: the tests' reference."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def forward_and_gradients(parameters, inputs, targets, *, grad_clipping=0.0, peepholes=True):
    """Summed cross-entropy and its gradients for one recurrent layer and a softmax layer.

    Graves (2013), eq. 7 to 11, and backpropagation through time by hand.

    Parameters
    ----------
    parameters : dict of arrays by the names of the Lasagne layers
    inputs, targets : integer arrays (sentences, steps)

    Returns
    -------
    float, dict of arrays by the same names
    """
    names = ("ingate", "forgetgate", "cell", "outgate")
    p = {key: np.asarray(value, "float64") for key, value in parameters.items()}
    W = np.concatenate([p[f"W_in_to_{n}"] for n in names], 1)
    U = np.concatenate([p[f"W_hid_to_{n}"] for n in names], 1)
    b = np.concatenate([p[f"b_{n}"] for n in names])
    H = U.shape[0]
    w_i, w_f, w_o = ([p[f"W_cell_to_{n}"] for n in ("ingate", "forgetgate", "outgate")]
                     if peepholes else np.zeros((3, H)))
    sentences, steps = inputs.shape
    h = np.repeat(p["hid_init"], sentences, 0)
    c = np.repeat(p["cell_init"], sentences, 0)
    saved, hidden = [], []
    for t in range(steps):
        a = W[inputs[:, t]] + b + h @ U
        i = sigmoid(a[:, :H] + c * w_i)
        f = sigmoid(a[:, H:2 * H] + c * w_f)
        g = np.tanh(a[:, 2 * H:3 * H])
        c_new = f * c + i * g
        o = sigmoid(a[:, 3 * H:] + c_new * w_o)
        saved.append((h, c, i, f, g, o, c_new))
        h, c = o * np.tanh(c_new), c_new
        hidden.append(h)
    loss = 0.0
    d = {key: np.zeros_like(value) for key, value in p.items()}
    d_hidden = []
    for t in range(steps):
        logits = hidden[t] @ p["softmax_W"] + p["softmax_b"]
        logits -= logits.max(1, keepdims=True)
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        rows = np.arange(sentences)
        loss -= np.log(probabilities[rows, targets[:, t]]).sum()
        probabilities[rows, targets[:, t]] -= 1
        d["softmax_W"] += hidden[t].T @ probabilities
        d["softmax_b"] += probabilities.sum(0)
        d_hidden.append(probabilities @ p["softmax_W"].T)
    dW, dU, db = np.zeros_like(W), np.zeros_like(U), np.zeros_like(b)
    dh, dc = np.zeros((sentences, H)), np.zeros((sentences, H))
    d_peepholes = np.zeros((3, H))
    for t in reversed(range(steps)):
        h, c, i, f, g, o, c_new = saved[t]
        dh = dh + d_hidden[t]
        tanh_c = np.tanh(c_new)
        do = dh * tanh_c * o * (1 - o)
        dc = dc + dh * o * (1 - tanh_c**2) + do * w_o
        di, df, dg = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g**2)
        d_peepholes += [(di * c).sum(0), (df * c).sum(0), (do * c_new).sum(0)]
        dc = dc * f + di * w_i + df * w_f
        da = np.concatenate([di, df, dg, do], 1)
        if grad_clipping:
            da = da.clip(-grad_clipping, grad_clipping)
        np.add.at(dW, inputs[:, t], da)
        dU += h.T @ da
        db += da.sum(0)
        dh = da @ U.T
    for n, name in enumerate(names):
        part = slice(n * H, (n + 1) * H)
        d[f"W_in_to_{name}"], d[f"W_hid_to_{name}"] = dW[:, part], dU[:, part]
        d[f"b_{name}"] = db[part]
    if peepholes:
        for name, value in zip(("ingate", "forgetgate", "outgate"), d_peepholes):
            d[f"W_cell_to_{name}"] = value
    d["hid_init"], d["cell_init"] = dh.sum(0, keepdims=True), dc.sum(0, keepdims=True)
    return loss, d

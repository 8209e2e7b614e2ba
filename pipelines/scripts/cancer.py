#!/usr/bin/env python3
"""Tells malignant from benign tumours by logistic regression, in plain Python.

    cancer.py prepare  DATA TRAIN TEST     splits the table at random, a third to test
    cancer.py features TRAIN SCALING       measures mean and deviation of each column
    cancer.py train    TRAIN SCALING MODEL
    cancer.py evaluate TEST SCALING MODEL  prints the accuracy
"""
import argparse
import csv
import json
import math
import os
import random
import statistics


def read(path):
    """Returns the rows as (features, class); the class is the last column."""
    with open(path, newline="") as lines:
        rows = [[float(field) for field in row] for row in csv.reader(lines)]
    return [(row[:-1], int(row[-1])) for row in rows]


def write(path, text):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w") as out:
        out.write(text)


def prepare(args):
    with open(args.data) as lines:
        rows = lines.read().splitlines()[1:]  # the first line holds counts and class names
    random.Random(args.seed).shuffle(rows)
    third = len(rows) // 3
    write(args.test, "\n".join(rows[:third]) + "\n")
    write(args.train, "\n".join(rows[third:]) + "\n")
    print(f"{len(rows) - third} rows to train, {third} to test")


def features(args):
    columns = list(zip(*(x for x, _ in read(args.train))))
    scaling = {"mean": [statistics.fmean(c) for c in columns], "deviation": [statistics.pstdev(c) or 1.0 for c in columns]}
    write(args.scaling, json.dumps(scaling))
    print(f"{len(columns)} features")


def load(table, scaling):
    with open(scaling) as text:
        scale = json.load(text)
    standard = lambda x: [(v - m) / d for v, m, d in zip(x, scale["mean"], scale["deviation"])]
    return [(standard(x), y) for x, y in read(table)]


def probability(weights, x):
    z = weights[-1] + sum(w * v for w, v in zip(weights, x))
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, z))))


def train(args):
    rows = load(args.train, args.scaling)
    weights = [0.0] * (len(rows[0][0]) + 1)
    for epoch in range(1, args.epochs + 1):
        gradient, loss = [0.0] * len(weights), 0.0
        for x, y in rows:
            p = probability(weights, x)
            loss -= math.log(max(p if y else 1.0 - p, 1e-12))
            for index, value in enumerate(x):
                gradient[index] += (p - y) * value
            gradient[-1] += p - y
        weights = [w - args.lr * g / len(rows) for w, g in zip(weights, gradient)]
        print(f"epoch {epoch}/{args.epochs} loss={loss / len(rows):.4f}", flush=True)
    write(args.model, json.dumps(weights))


def evaluate(args):
    rows = load(args.test, args.scaling)
    with open(args.model) as text:
        weights = json.load(text)
    right = sum((probability(weights, x) > 0.5) == bool(y) for x, y in rows)
    print(f"accuracy {right / len(rows):.4f} ({right} of {len(rows)})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for step, files in [(prepare, "data train test"), (features, "train scaling"), (train, "train scaling model"), (evaluate, "test scaling model")]:
        command = commands.add_parser(step.__name__)
        command.set_defaults(step=step)
        for name in files.split():
            command.add_argument(name)
        if step is prepare:
            command.add_argument("--seed", type=int, default=0)
        if step is train:
            command.add_argument("--epochs", type=int, default=100)
            command.add_argument("--lr", type=float, default=0.5)
    args = parser.parse_args()
    args.step(args)


if __name__ == "__main__":
    main()

"""Trains a support vector machine on dataset.npz: model.pkl."""

import argparse
import pickle
import time

import numpy
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

import cultivar


def number_or_word(text):
    """--gamma is a number, or `scale` or `auto`."""
    try:
        return float(text)
    except ValueError:
        return text


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="URI of dataset.npz")
    parser.add_argument("--out", required=True, help="folder for model.pkl")
    parser.add_argument("--kernel", default="rbf", choices=["linear", "poly", "rbf", "sigmoid"])
    parser.add_argument("--C", type=float, default=1.0, help="how much an error costs")
    parser.add_argument("--gamma", type=number_or_word, default="scale", help="reach of one example")
    parser.add_argument("--degree", type=int, default=3, help="degree of the poly kernel")
    parser.add_argument("--validation-fraction", type=float, default=0.2, help="part of the training data to judge by")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    data = numpy.load(cultivar.path_of(args.data))
    x, x_val, y, y_val = train_test_split(
        data["x_train"], data["y_train"], test_size=args.validation_fraction, random_state=args.seed
    )
    print(f"training on {len(y)} digits: kernel={args.kernel} C={args.C} gamma={args.gamma}", flush=True)
    begun = time.monotonic()
    model = SVC(kernel=args.kernel, C=args.C, gamma=args.gamma, degree=args.degree, random_state=args.seed).fit(x, y)
    took = time.monotonic() - begun
    train_acc, val_acc = model.score(x, y), model.score(x_val, y_val)
    print(f"fitted in {took:.2f} s; accuracy {train_acc:.4f} in training and {val_acc:.4f} in validation")

    path = cultivar.write(args.out, "model.pkl", lambda file: pickle.dump(model, file))
    cultivar.report(
        {
            "train/acc": round(train_acc, 6),
            "val/acc": round(val_acc, 6),
            "support_vectors": int(model.n_support_.sum()),
            "fit_seconds": round(took, 3),
        },
        [cultivar.artifact("model", path, "Model")],
    )


if __name__ == "__main__":
    main()

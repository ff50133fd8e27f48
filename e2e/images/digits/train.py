"""Trains a support vector machine on handwritten digits, and lets MLflow log whatever there is to log."""

import argparse

import mlflow
import numpy
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC


def number_or_word(text):
    """--gamma is a number, or `scale` or `auto`."""
    try:
        return float(text)
    except ValueError:
        return text


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the file that prepare.py wrote")
    parser.add_argument("--kernel", default="rbf", choices=["linear", "poly", "rbf", "sigmoid"])
    parser.add_argument("--C", type=float, default=1.0, help="how much an error costs")
    parser.add_argument("--gamma", type=number_or_word, default="scale", help="reach of one example")
    parser.add_argument("--degree", type=int, default=3, help="degree of the poly kernel")
    parser.add_argument("--validation-fraction", type=float, default=0.2, help="part of the training data to judge by")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    # Parameters, metrics and the model itself.
    mlflow.autolog()

    data = numpy.load(args.data)
    x, x_val, y, y_val = train_test_split(
        data["x_train"], data["y_train"], test_size=args.validation_fraction, random_state=args.seed
    )
    print(f"training on {len(y)} digits: kernel={args.kernel} C={args.C} gamma={args.gamma}", flush=True)
    model = SVC(kernel=args.kernel, C=args.C, gamma=args.gamma, degree=args.degree, random_state=args.seed).fit(x, y)
    # Logged as well, under the names of the model and of the data: SVC_score_x_val.
    print(f"accuracy {model.score(x_val, y_val):.4f} in validation")


if __name__ == "__main__":
    main()

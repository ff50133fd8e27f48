"""Splits scikit-learn's 1797 handwritten digits into a training and a test part, and saves both in one file."""

import argparse

import numpy
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="the file to write, .npz")
    parser.add_argument("--test-fraction", type=float, default=0.3, help="part that training never sees")
    parser.add_argument("--seed", type=int, default=0, help="which digits go where")
    args = parser.parse_args()

    digits = load_digits()
    # Pixels are 0 to 16.
    parts = train_test_split(
        digits.data / 16.0, digits.target, test_size=args.test_fraction, random_state=args.seed, stratify=digits.target
    )
    arrays = dict(zip(("x_train", "x_test", "y_train", "y_test"), parts))
    # numpy dates every member 1980, so the same seed gives the same bytes and the same digest.
    numpy.savez_compressed(args.out, **arrays)
    print(f"{len(arrays['y_train'])} digits to train on and {len(arrays['y_test'])} to test with are in {args.out}")


if __name__ == "__main__":
    main()

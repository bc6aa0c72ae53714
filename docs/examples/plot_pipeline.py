"""
Features for a classifier
=========================

A ConvVAE is a transformer, and stands before a classifier in a pipeline as PCA does. It
learns its features without labels. Here it compresses digits of 64 pixels to 2, 4, 8
or 16 features, which a logistic regression classifies.
"""

from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skvae import ConvVAE

X, y = load_digits(return_X_y=True)  # rows of 64 pixels
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

# %%
# The pipeline trains the ConvVAE on the images alone, and the classifier on their
# features.

pipeline = make_pipeline(
    ConvVAE(latent_dim=8, filters=32, hidden_layers=2, epochs=25, random_state=0),
    LogisticRegression(max_iter=1000),
)
pipeline.fit(X_train, y_train)
print(f"accuracy: {pipeline.score(X_test, y_test):.3f}")

# %%
# With few features, ConvVAE keeps more of what tells the digits apart than PCA.

numbers = [2, 4, 8, 16]
accuracies = {"ConvVAE": [], "PCA": []}
for number in numbers:
    pipeline.set_params(convvae__latent_dim=number)
    of_pca = make_pipeline(PCA(number), LogisticRegression(max_iter=1000))
    for name, model in (("ConvVAE", pipeline), ("PCA", of_pca)):
        model.fit(X_train, y_train)
        accuracies[name].append(model.score(X_test, y_test))

figure, ax = plt.subplots(layout="constrained")
for name, values in accuracies.items():
    ax.plot(numbers, values, marker="o", label=name)
ax.set_xscale("log", base=2)
ax.set_xticks(numbers, numbers)
ax.set(xlabel="features", ylabel="accuracy on test images")
_ = ax.legend()

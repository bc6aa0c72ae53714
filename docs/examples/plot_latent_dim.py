"""
Choosing latent_dim by grid search
==================================

``score`` is the mean log-likelihood of images, so a grid search without labels chooses
the number of latent features that describes held-out images best.
"""

from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from skvae import ConvVAE

images = load_digits().images
vae = ConvVAE(
    filters=8,
    hidden_layers=2,
    epochs=25,
    early_stopping=True,
    n_iter_no_change=5,
    random_state=0,
)
search = GridSearchCV(vae, {"latent_dim": [2, 4, 8, 16, 32]}, cv=2)
search.fit(images)
search.best_params_

# %%
# The score rises as long as another feature describes the images better than noise
# does. After that it hardly changes, because latent features that are of no use stay
# unused: their KL is near zero. The line marks the highest score. Among numbers whose
# scores differ by less than their spread, a smaller one is as good.

results = search.cv_results_
numbers = results["param_latent_dim"].data.astype(int)
figure, ax = plt.subplots(layout="constrained")
ax.errorbar(
    numbers,
    results["mean_test_score"],
    yerr=results["std_test_score"],
    marker="o",
    capsize=3,
)
ax.set_xscale("log", base=2)
ax.set_xticks(numbers, numbers)
ax.set(xlabel="latent_dim", ylabel="log-likelihood of held-out images, nats")
_ = ax.axvline(search.best_params_["latent_dim"], color="grey", linestyle=":")

# %%
# ``best_estimator_`` has been fitted to all images with the best number. ``latent_kl_``
# is what each of its features carries.

best = search.best_estimator_
figure, ax = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
ax.bar(range(best.latent_dim), sorted(best.latent_kl_, reverse=True))
_ = ax.set(xlabel="latent features, most used first", ylabel="KL, nats")

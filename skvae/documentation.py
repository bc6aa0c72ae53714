"""Address of the documentation, to which scikit-learn's view of an estimator links."""

# Where the pages of docs/ are published. All other addresses start with it.
BASE_ADDRESS = "https://skvae.readthedocs.io/en/stable/"

# scikit-learn fills in the name of the class.
CLASS_ADDRESS = BASE_ADDRESS + "api/skvae.{estimator_name}.html"

"""Many runs: what a notebook declares is planned, executed by papermill, and summed up."""

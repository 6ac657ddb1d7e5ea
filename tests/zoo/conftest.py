"""The zoo's test runs beside the zoo's helpers; tests/integration/test_package.py runs it here."""

collect_ignore = ["test_fundus_dr_multitask.py"]

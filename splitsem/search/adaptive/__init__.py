"""The setting that suits now: tables, estimates of link and loads, the controller, and its simulation on traces."""

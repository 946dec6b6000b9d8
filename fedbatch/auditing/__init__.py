"""Attacking a private run with canaries, to see whether its epsilon holds: ``fedbatch audit``."""

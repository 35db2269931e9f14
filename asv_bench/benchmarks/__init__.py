"""Benchmarks, run by airspeed velocity."""

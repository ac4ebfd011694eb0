"""Measuring: what `mqkit bench` and the project's own benchmark (tests/bench) share. Nothing here is used by a service.

meter    a stretch of time: wall clock, CPU of this process, what the machine's host took away; the calibration loop
orders   what is sent: orders of a given size
load     publishing with so many in flight, in batches, or at a steady pace
tally    what a handler was called with, how fast, and after how long
trial    the cases that `mqkit bench` runs on a broker
"""

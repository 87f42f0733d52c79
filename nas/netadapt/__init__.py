"""NetAdapt, whole: a network trimmed step by step to a latency budget, judged by an estimator or on images."""

"""Audit: can a data set's split be trusted?"""

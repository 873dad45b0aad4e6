"""Certificates for people who have no authority of their own."""

DROP TABLE armoury;
DROP TABLE shields;

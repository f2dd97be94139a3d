CREATE TABLE employees (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  department TEXT NOT NULL,
  city TEXT NOT NULL,
  salary INTEGER NOT NULL,
  hired INTEGER NOT NULL
);
INSERT INTO employees (id, name, department, city, salary, hired) VALUES
  (1, 'Nina Falk', 'Finance', 'Oslo', 5200, 2012),
  (2, 'Hugo Brandt', 'Legal', 'Prague', 6400, 2008),
  (3, 'Clara Weiss', 'Finance', 'Prague', 4800, 2017),
  (4, 'Igor Novak', 'Logistics', 'Oslo', 3100, 2021),
  (5, 'Rita Gomez', 'Legal', 'Oslo', 5900, 2015),
  (6, 'Sam Porter', 'Logistics', 'Cairo', 2900, 2018),
  (7, 'Yuki Mori', 'Research', 'Cairo', 6700, 2010),
  (8, 'Eva Lind', 'Research', 'Seoul', 4400, 2023),
  (9, 'Max Keller', 'Finance', 'Cairo', 3700, 2019),
  (10, 'Amir Said', 'Logistics', 'Athens', 3500, 2016),
  (11, 'Ida Holm', 'Research', 'Seoul', 5300, 2011),
  (12, 'Leo Grant', 'Legal', 'Seoul', 4700, 2020),
  (13, 'Mona Price', 'Finance', 'Athens', 5700, 2014),
  (14, 'Ken Adams', 'Research', 'Oslo', 5100, 2013),
  (15, 'Rosa Lopez', 'Legal', 'Cairo', 3300, 2022),
  (16, 'Ivan Petrov', 'Logistics', 'Seoul', 2700, 2009);
